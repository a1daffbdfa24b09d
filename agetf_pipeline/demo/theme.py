"""How the app looks: the system's fonts, dark ink on white, nothing fetched from anywhere."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradio.themes import Base

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "Liberation Mono", "monospace")

HEAD = """<script>
document.documentElement.lang = "en";
new MutationObserver(() => document.querySelectorAll("#ageing-swipe img").forEach((img, i) => {
  if (!img.alt) img.alt = i ? "The face at the chosen age" : "The original face";
})).observe(document, {childList: true, subtree: true});
</script>"""
"""Gradio leaves `lang` to the browser's language, and the swiped pictures without texts."""

CSS = """
.faces { display: grid; grid-template-columns: repeat(auto-fit, minmax(84px, 1fr)); gap: 8px; }
.faces figure, .pair figure { margin: 0; }
.faces img, .pair img { width: 100%; border-radius: 6px; display: block; }
.faces figcaption, .pair figcaption { font-size: 13px; line-height: 1.35; padding-top: 4px; }
.faces strong { font-size: 15px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.note { font-size: 13px; color: var(--body-text-color-subdued); }
:focus-visible { outline: 3px solid #1d4ed8 !important; outline-offset: 2px; }
"""


def theme() -> "Base":
    """Return the theme; its lists of fonts name those of the system alone."""
    from gradio.themes import Base

    return Base(
        primary_hue="blue", secondary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=_MONO
    ).set(
        body_text_color_subdued="*neutral_600",
        block_label_text_color="*neutral_700",
        block_info_text_color="*neutral_600",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
    )
