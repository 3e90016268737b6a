"""What a run takes: a sample and rates measured (survey, measure), amounts and costs by formula, and a page of them."""
