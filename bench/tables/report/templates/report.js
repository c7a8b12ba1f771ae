"use strict";
(() => {
  const root = document.documentElement;
  const each = (selector, act, within = document) => within.querySelectorAll(selector).forEach(act);

  // Light and dark: the system's choice, until the button is pressed.
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const themeButton = document.getElementById("theme");
  const nameTheme = () => { themeButton.textContent = isDark() ? "Light colours" : "Dark colours"; };
  themeButton.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  nameTheme();
  each("[data-script]", (element) => { element.hidden = false; });

  addEventListener("beforeprint", () => {
    each("img[loading]", (image) => { image.loading = "eager"; });
    each("details", (details) => { details.open = true; });
  });

  // Tables: sort by a header (ascending, descending, as written), filter rows, choose columns.
  each("table.grid", (table) => {
    const body = table.tBodies[0], original = [...body.rows];
    const key = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.order === undefined ? cell.textContent.trim() : Number(cell.dataset.order);
    };
    const compare = (a, b) => {
      const empty = (value) => value === "-" || value === "";
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      if (typeof a === "number" && typeof b === "number") return a - b;
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return a.localeCompare(b, "en", { numeric: true });
    };
    each("thead th > button", (button) => button.addEventListener("click", () => {
      const head = button.parentElement, column = head.cellIndex, before = head.getAttribute("aria-sort");
      each("thead th", (other) => other.setAttribute("aria-sort", "none"), table);
      const direction = before === "ascending" ? "descending" : before === "descending" ? "none" : "ascending";
      head.setAttribute("aria-sort", direction);
      const sorted = [...original];
      if (direction !== "none") {
        sorted.sort((a, b) => {
          const first = key(a, column), second = key(b, column), order = compare(first, second);
          const last = first === "-" || second === "-" || first === "" || second === "";
          return direction === "descending" && !last ? -order : order;
        });
      }
      body.append(...sorted);
    }), table);
    const tools = document.querySelector(`[data-tools="${table.id}"]`);
    const count = tools.querySelector("output");
    tools.querySelector("input[type=search]").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      original.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      });
      const shown = original.filter((row) => !row.hidden).length;
      count.textContent = words.length ? `${shown} of ${original.length} rows` : "";
    });
    each("input[type=checkbox]", (box) => box.addEventListener("change", () => {
      each("tr", (row) => { row.cells[Number(box.value)].hidden = !box.checked; }, table);
    }), tools);
  });

  // Contact sheets: choose a class; open the history of an item.
  each("select[data-sheet]", (select) => select.addEventListener("change", () => {
    const table = document.getElementById(select.dataset.sheet);
    each("thead th[data-class]", (head) => {
      const hide = select.value !== "" && head.dataset.class !== select.value;
      each("tr", (row) => { row.cells[head.cellIndex].hidden = hide; }, table);
    }, table);
  }));

  const dialog = document.getElementById("lightbox");
  if (!dialog) return; // a page without images
  const heading = dialog.querySelector("h2"), history = dialog.querySelector(".history");
  let open = null; // {table, column}: the item that is shown
  const add = (parent, tag, text) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    parent.append(element);
    return element;
  };
  const columns = (table) => [...table.tHead.rows[0].cells].filter((cell) => cell.dataset.class && !cell.hidden)
    .map((cell) => cell.cellIndex);
  const show = (table, column) => {
    open = { table, column };
    const head = table.tHead.rows[0].cells[column], list = columns(table);
    heading.textContent = `${head.dataset.name} (${list.indexOf(column) + 1} of ${list.length})`;
    history.replaceChildren();
    add(history, "h3", "Image that was shown (stimulus)");
    history.append(head.querySelector("img").cloneNode());
    [...table.tBodies[0].rows].forEach((row) => {
      add(history, "h3", row.cells[0].textContent.trim());
      each("img", (image) => {
        const figure = add(history, "figure");
        figure.append(image.cloneNode());
        add(figure, "figcaption", image.dataset.answer || "");
      }, row.cells[column]);
    });
    dialog.querySelectorAll("[data-step]").forEach((button) => { button.hidden = false; });
    if (!dialog.open) dialog.showModal();
    history.parentElement.scrollTop = 0;
  };
  const step = (by) => {
    if (!open) return;
    const list = columns(open.table), place = list.indexOf(open.column) + by;
    show(open.table, list[(place + list.length) % list.length]);
  };
  each("table.sheet", (table) => table.addEventListener("click", (event) => {
    const cell = event.target.closest("th, td");
    if (cell && table.tHead.rows[0].cells[cell.cellIndex].dataset.class) show(table, cell.cellIndex);
  }));
  each(".zoom", (button) => button.addEventListener("click", () => {
    open = null;
    heading.textContent = "Contact sheet";
    const image = button.querySelector("img").cloneNode();
    image.className = "whole";
    history.replaceChildren(image);
    dialog.querySelectorAll("[data-step]").forEach((other) => { other.hidden = true; });
    dialog.showModal();
  }));
  each("[data-step]", (button) => button.addEventListener("click", () => step(Number(button.dataset.step))));
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      step(event.key === "ArrowLeft" ? -1 : 1);
    }
  });
  dialog.addEventListener("close", () => {
    if (open) open.table.tHead.rows[0].cells[open.column].querySelector("button").focus();
  });
})();
