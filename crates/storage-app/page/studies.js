// studies
