"""The frozen foundation models behind three protocols."""
