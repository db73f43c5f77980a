"""From recorded answers to preference rates, rankings, figures and a report."""
