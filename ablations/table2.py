"""Table 2 of DreamDiffusion: Full and rows 1 to 14.

    bench run --ablation table2
"""

from bench import FULL, replace

full = FULL  # 45.8
row1 = replace(FULL, name="1", mask_ratio=None, align=None)  # 4.2
row2 = replace(FULL, name="2", mask_ratio=None, align=None, size="18.3M")  # 3.7
row3 = replace(FULL, name="3", mask_ratio=None)  # 32.3
row4 = replace(FULL, name="4", mask_ratio=None, size="18.3M")  # 24.5
row5 = replace(FULL, name="5", mask_ratio=0.25)  # 19.7
row6 = replace(FULL, name="6", mask_ratio=0.5)  # 38.3
row7 = replace(FULL, name="7", mask_ratio=0.85)  # 33.4
row8 = replace(FULL, name="8", size="458M")  # 38.5
row9 = replace(FULL, name="9", size="162M")  # 36.6
row10 = replace(FULL, name="10", size="74M")  # 29.8
row11 = replace(FULL, name="11", size="18.3M")  # 28.7
row12 = replace(FULL, name="12", tune="E")  # 22.4
row13 = replace(FULL, name="13", align=None)  # 28.3
row14 = replace(FULL, name="14", align=None, tune="A")  # 20.9

variants = [full, row1, row2, row3, row4, row5, row6, row7, row8, row9, row10, row11, row12, row13, row14]
contrasts = [
    ("Full", "3"), ("13", "1"), ("11", "4"),  # pre-training
    ("Full", "13"), ("3", "1"), ("4", "2"),  # CLIP
    ("Full", "5"), ("Full", "6"), ("Full", "7"),  # mask ratio
    ("Full", "8"), ("Full", "9"), ("Full", "10"), ("Full", "11"),  # encoder size
    ("Full", "12"), ("13", "14"),  # what is trained
]
primary = [("Full", "3"), ("Full", "13"), ("Full", "5"), ("Full", "11")]  # pre-training, CLIP, mask ratio, size
published = "dreamdiffusion_table2"
