"""Submissions: one system's recorded results as a folder that anybody can check, boards of several, and challenges."""
