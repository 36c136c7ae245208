"""What labels are worth without ground truth: the numbers, their file, and the page to look at in the morning."""
