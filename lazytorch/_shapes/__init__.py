"""Running a forward on shapes, without arithmetic."""
