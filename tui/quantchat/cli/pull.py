"""`quantchat pull`: its options; the work is in `pulling`, which `--help` does without."""

from __future__ import annotations

import click

from quantchat.cli.common import explained


@click.command()
@click.argument("repository", required=False, metavar="REPO[@REV]")
@click.option("--include", multiple=True, metavar="PATTERN", help="Take files that match too, such as '*Q4_K_M.gguf'.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out files that match.")
@click.option("--all", "everything", is_flag=True, help="Take all files: pickles and doubles too.")
@click.option("--search", metavar="WORDS", help="Look for models by name instead.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before the download.")
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched, and whether it will fit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line, and ask nothing.")
def pull(
    repository: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    everything: bool,
    search: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Download a model into the hub cache: safetensors, configs and tokenizer, checked, and resumed where it stopped.

    HF_ENDPOINT names a mirror, HF_TOKEN an account, HF_HUB_CACHE another place.
    """
    from quantchat.cli.pulling import Options, pull_model, show_search

    if (repository is None) == (search is None):
        raise click.UsageError("Name a repository, or search for one with --search WORDS.")
    options = Options(
        include=include, exclude=exclude, everything=everything, yes=yes, dry_run=dry_run, as_json=as_json
    )
    with explained():
        if search is not None:
            show_search(search, as_json=as_json)
        elif repository is not None:
            pull_model(repository, options)
