"""What is wrong in labels and images: tables in, a table of suspicions out."""
