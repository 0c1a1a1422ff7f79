"""Pushes a folder to a Hub as its own client does: HUB TOKEN FOLDER REPOSITORY. Needs huggingface_hub."""

import os
import sys

endpoint, token, folder, repository = sys.argv[1:]
# Large files by git-lfs, as programs without the Hub's own storage send them.
os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

from huggingface_hub import HfApi, ModelCard  # noqa: E402

api = HfApi(endpoint=endpoint, token=token)
api.create_repo(repository, private=True, exist_ok=True)
api.upload_folder(repo_id=repository, folder_path=folder, commit_message="By the Hub's own client")

# The card's metadata is what the Hub's own library makes of it.
with open(f"{folder}/README.md", encoding="utf-8") as card:
    data = ModelCard(card.read()).data
assert data.library_name == "engraft" and data.license == "unknown", data
(result,) = data.eval_results
assert result.task_type == "image-classification" and result.metric_type == "accuracy", result
assert 0 <= result.metric_value <= 1, result
