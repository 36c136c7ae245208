"""Many trainings that differ in one thing each, judged alike: which part of the method earns what."""
