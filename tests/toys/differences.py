from sparc_bench.metrics.bootstrap import paired_differences


def paired_difference(a, b):
    """One statistic minus another, under common draws."""
    return paired_differences({"": (a, b)})[""]
