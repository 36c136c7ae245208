"""What every run over a folder is made of: decoded ahead, written behind, in parts, interrupted and gone on with."""
