"""Where pictures and EEG come from: numpy only."""
