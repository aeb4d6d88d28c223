"""Reports of `ser eval`: plots, Markdown and HTML documents, and model cards."""
