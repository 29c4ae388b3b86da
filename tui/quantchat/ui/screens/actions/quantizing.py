"""Making a quantized model: the form, the job behind the chat, what is done with its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from quantchat.domain.servers import PREFIX
from quantchat.errors import QuantchatError
from quantchat.ui.screens.actions.part import ScreenPart
from quantchat.ui.widgets.models import ModelList

if TYPE_CHECKING:
    from quantchat.services.quantizing.job import QuantizeJob
    from quantchat.services.quantizing.plan import Plan, Preflight
    from quantchat.ui.screens.job import Next


DRAWN = 2
"""A table is drawn so much less often than the figures of the status bar, of whose line it is a hundredfold."""


class QuantizeActions(ScreenPart):
    """One job at a time; it goes on behind the chat."""

    _plan: Plan | None = None
    _seen: QuantizeJob | None = None

    def action_quantize(self, name: str = "") -> None:
        """Show the job under way, or its end that nobody saw; else what a quantization of a model takes."""
        job = self.desk.quantizing.job
        if job is not None and job is not self._seen and (self.desk.quantizing.running or not name.strip()):
            self.show_job(job)
        else:
            self._open_form(name.strip())

    # The form

    def _open_form(self, name: str) -> None:
        from quantchat.services.quantizing.plan import Plan
        from quantchat.ui.screens.quantize import QuantizeScreen
        from quantchat.ui.workshop import Workshop

        workshop = Workshop(self.desk, self._app)
        source = workshop.find(name) if name else self._to_quantize()
        if source.startswith(PREFIX):
            # Says why not.
            name, source = source, workshop.find(source)
        if name and not source:
            return
        plan = self._plan or Plan(source="")
        if source and source != plan.source:
            plan = msgspec.structs.replace(plan, source=source, output=None, adapter="")
        self._app.push_screen(QuantizeScreen(plan, workshop, self._keep_plan), self._on_started)

    def _keep_plan(self, plan: Plan) -> None:
        self._plan = plan

    def _on_started(self, preflight: Preflight | None) -> None:
        job = self.desk.quantizing.job
        if preflight is not None and job is not None:
            self.show_job(job)

    def _to_quantize(self) -> str:
        """Tell which model is meant: the one under the cursor in the list, the last one, or one that can be."""
        from quantchat.ui.workshop import sources

        rows = self._screen.query_one(ModelList)
        highlighted = self.desk.find(rows.highlighted_id)
        if rows.has_focus and highlighted is not None:
            return highlighted.path
        if self._plan is not None:
            return self._plan.source
        possible = sources(self.desk.library.models)
        wanted = (self.desk.library.model, highlighted, *possible)
        return next((model.path for model in wanted if model is not None and model in possible), "")

    # The job

    def show_job(self, job: QuantizeJob) -> None:
        """Show how a job stands."""
        from quantchat.ui.screens.job import JobScreen

        def go_on(wanted: Next | None) -> None:
            if job.state.ended:
                self._seen = job
            self._after(job, wanted)

        self._app.push_screen(JobScreen(self.desk.quantizing, job, DRAWN / self._app.link.status_hz), go_on)

    def _after(self, job: QuantizeJob, wanted: Next | None) -> None:
        if wanted == "again":
            self._plan = job.preflight.plan
            self._open_form("")
        elif wanted == "load":
            self._load_result(job)
        elif wanted == "evaluate":
            self._screen.action_evaluate(str(job.preflight.output))

    def _load_result(self, job: QuantizeJob) -> None:
        from quantchat.catalog.scan import find_model

        try:
            self.desk.load(find_model(str(job.preflight.output), self.desk.library.models))
        except QuantchatError as error:
            self._app.notify(str(error), severity="warning")

    def ask_to_quit(self) -> bool:
        """Ask before a job is lost with the program; say whether there is one."""
        job = self.desk.running_job
        if job is None:
            return False
        from quantchat.ui.jobs import percent
        from quantchat.ui.screens.dialogs import ConfirmScreen

        async def leave(sure: bool | None) -> None:
            if sure:
                await self._app.leave()

        if not isinstance(self._app.screen, ConfirmScreen):
            share = f"A quantization is {percent(job.state.share)} done"
            question = f"{share}. It ends with the program, and nothing of it is kept."
            self._app.push_screen(ConfirmScreen(question, "Quit", final=True), leave)
        return True

    def job_texts(self) -> tuple[str, ...]:
        """What the status bar says of the job that runs."""
        job = self.desk.running_job
        if job is None:
            return ()
        from quantchat.ui.jobs import job_texts

        return job_texts(job.state)

    def job_line(self) -> str:
        """What the line above the prompt says of the job that runs."""
        job = self.desk.running_job
        if job is None:
            return ""
        from quantchat.ui.jobs import job_line

        return job_line(job.preflight.output.name, job.state)
