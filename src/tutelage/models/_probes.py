"""Texts on which tokenizers that look alike part.

Spaces, lines and tabs, contractions, numbers, code, accents joined and apart, scripts, emoji, rare and unseen signs.
"""
# ruff: noqa: RUF001 (signs that look like others are what this is about)

from __future__ import annotations

PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    " leading, trailing  and   many    spaces ",
    "line\nline\r\n\ttab\n\n\n    four spaces\u00a0and a hard one",
    "I'll don't WE'RE O'Neil's rock'n'roll",
    "0 1 12 123 1234 12345 3.14159 1,000,000 2024-02-29 0xFF",
    "def f(x: int) -> int:\n    return x ** 2  # squared\n",
    '{"key": [1, null, true], "path": "C:\\\\dir"}',
    "naïve Ångström \ufb01nance ½ ² ™",
    "cafe\u0301 is two signs where caf\u00e9 is one",
    "Привет, мир. Γειά σου. שלום مرحبا नमस्ते 你好，世界 こんにちは 안녕하세요 สวัสดี",
    "\U0001f44d \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 ∑∫√ → \U0001d518",
    "\ufeffmark \u200b \x00 \x7f \ue000",
)
