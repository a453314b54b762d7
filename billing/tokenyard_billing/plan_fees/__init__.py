"""What plans ask for a period: fees, minimums, and the part of each where a plan held for a part of it."""
