class ChatGLMTokenizer:
    pass
