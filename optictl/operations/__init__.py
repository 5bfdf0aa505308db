"""What changes the machine: plans, and how they are carried out."""
