"""Hydra finds this file by its place: `hydra/sweeper: lab`, the sweeps of train.py."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from lab.errors import UserError


class LabSweeper(BasicSweeper):
    """Hydra's own syntax of sweeps; runs what is not finished, by any launcher, and sums up; search=20 searches."""

    def setup(self, **context: Any) -> None:
        from lab.experiments.jobs import run_job  # Hydra reads this file at every start

        try:
            super().setup(**context | {"task_function": run_job})
        except RuntimeError:
            launcher = context["config"].hydra.runtime.choices["hydra/launcher"]
            raise UserError(f"hydra/launcher={launcher} is not installed: pip install '.[cluster]'") from None

    def sweep(self, arguments: list[str]) -> None:
        from lab.config.checks import refuse_without_search
        from lab.experiments.knobs import refuse_ranges
        from lab.experiments.search import search
        from lab.experiments.sweep import sweep

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        preset = parser.parse_overrides(self._parse_config())
        overrides = [*preset, *parser.parse_overrides(arguments)]
        last = {override.key_or_group: override for override in overrides}  # the command line wins over a preset
        if self.config.search is not None:
            plain = [override for override in last.values() if not override.is_sweep_override()]
            ((fixed,),) = self.split_arguments(plain, None)
            search(list(last.values()), fixed, self.config, self.hydra_context)
            return
        refuse_ranges(overrides)
        refuse_without_search(self.config)
        swept = [override.get_key_element() for override in last.values() if override.is_sweep_override()]
        if preset and not swept:
            one = last[preset[0].key_or_group].input_line
            raise UserError(f"{one}: takes the place of all values that +sweep tries: leave it out")
        (jobs,) = self.split_arguments(overrides, None)
        folder = sweep(jobs, swept, self.config, self.hydra_context, self.launcher)
        if self.config.report:
            from lab.report.report import write_report

            write_report(folder, self.config.lang or "en")


target = f"{LabSweeper.__module__}.{LabSweeper.__name__}"
node = {"_target_": target, "max_batch_size": None, "params": None}
ConfigStore.instance().store(group="hydra/sweeper", name="lab", node=node, provider="lab")
