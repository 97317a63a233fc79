"""What the notebooks are taught with: exercises that check themselves, figures, a project."""
