"""What a mask says in numbers and shapes: connected components, areas, polygons."""
