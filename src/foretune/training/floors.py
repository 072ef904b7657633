def measure_floors(run, folder):
    return {}
