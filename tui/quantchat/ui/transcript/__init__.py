"""What the transcript shows, apart from the widget: messages, blocks of Markdown, and the lines they become."""
