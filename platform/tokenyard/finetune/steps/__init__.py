"""The steps of a job, one a file. Each takes a job and returns its progress; none of them saves."""
