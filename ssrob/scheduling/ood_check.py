"""Images of no known class, looked at before a study starts: they must be there, and nothing may be trained on them."""

from ssrob.config.fields import ConfigError
from ssrob.data.leakage import check_unseen
from ssrob.data.sources import check_source
from ssrob.planning.ood_specs import image_sets
from ssrob.planning.plan import Plan
from ssrob.planning.stage import data_stage
from ssrob.scheduling.images import counts_of
from ssrob.storage.store import Store


def check_ood(plan: Plan, store: Store) -> None:
    """Refuse image sets that overlap with what is trained on, and more neighbours or bins than there are images."""
    todo = [stage for kind in ("ood", "calibrate") for stage in plan.of_kind(kind).values()]
    if all(store.done(stage.path) for stage in todo):
        return
    study = plan.study
    for data in image_sets(study).values():
        if store.done(data_stage(data).path):
            continue
        check_source(data)
        for trained in filter(None, (study.data, study.pretrain_data)):
            check_unseen(data, trained)
    counts = counts_of(data_stage(study.data), store)
    if counts is None:
        return
    if study.ood and study.ood.neighbours > counts[0]:
        raise ConfigError(f"ood.neighbours: must be 1..{counts[0]} (training images), found {study.ood.neighbours}")
    if study.calibrate and study.calibrate.bins > min(counts[1], study.calibrate.images):
        most = min(counts[1], study.calibrate.images)
        raise ConfigError(f"calibrate.bins: must be 1..{most} (test images), found {study.calibrate.bins}")
