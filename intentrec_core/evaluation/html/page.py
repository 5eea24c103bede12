def report_page(*a): return "x"
