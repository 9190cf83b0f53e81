"""Write the JSON schema of ``report.json``, generated from the types, into docs/report.schema.json.

python tools/report_schema.py
"""

import json
from pathlib import Path

from pytest_mxq.reports.records import json_schema

TARGET = Path(__file__).parents[1] / "docs" / "report.schema.json"

if __name__ == "__main__":
    TARGET.write_text(json.dumps(json_schema(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(TARGET.name)
