"""What is expected of ingested preference data, as Great Expectations suites, one for each frame of `frames`."""

import os

# Read when great_expectations is imported; without it every run reports to its makers.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
import great_expectations.expectations as gxe

from clha_core.data.tables import SCHEMA
from clha_core.params import ValidateParams

# An expectation's meta says in a sentence what must hold and why; reports and errors quote it.
RULE = "rule"


def schema_suite() -> gx.ExpectationSuite:
    """Each split file has the columns and types of preference rows."""
    columns = gxe.ExpectTableColumnsToMatchSet(
        column_set=["split", *SCHEMA.names],
        exact_match=True,
        meta={RULE: "The tables have the columns of preference rows and no others."},
    )
    types = [
        gxe.ExpectColumnValuesToBeInSet(
            column=field.name,
            value_set=[str(field.type)],
            meta={RULE: f"The column {field.name} has the type {field.type}."},
        )
        for field in SCHEMA
    ]
    return gx.ExpectationSuite(name="schema", expectations=[columns, *types])


def rows_suite(limits: ValidateParams, subsets: list[str]) -> gx.ExpectationSuite:
    """Each preference row is whole and within the limits; `subsets` are the known names, empty for any plain one."""
    known_subset = (
        gxe.ExpectColumnValuesToBeInSet(
            column="subset",
            value_set=sorted(subsets),
            meta={RULE: "Rows belong to the subsets that data.subsets names."},
        )
        if subsets
        else gxe.ExpectColumnValuesToMatchRegex(
            column="subset", regex=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", meta={RULE: "Subset names are plain."}
        )
    )
    return gx.ExpectationSuite(
        name="rows",
        expectations=[
            gxe.ExpectColumnValuesToNotBeNull(column="id", meta={RULE: "Every row has an id."}),
            gxe.ExpectColumnValuesToBeUnique(column="id", meta={RULE: "No two rows have the same id."}),
            gxe.ExpectColumnValuesToNotBeNull(column="subset", meta={RULE: "Every row names its subset."}),
            known_subset,
            gxe.ExpectColumnValuesToMatchRegex(
                column="roles",
                regex=r"^(?:system )?(?:user assistant )*user$",
                meta={RULE: "A prompt is an optional system message, then user and assistant by turns, the user last."},
            ),
            gxe.ExpectColumnValuesToBeInSet(
                column="last_role",
                value_set=["user"],
                meta={RULE: "The last turn of a prompt is the user's."},
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="shortest_turn_chars", min_value=1, meta={RULE: "No turn of a prompt is empty."}
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="prompt_chars",
                max_value=limits.max_prompt_chars,
                meta={RULE: "No prompt is longer than validate.max_prompt_chars."},
            ),
            gxe.ExpectColumnValuesToMatchRegex(
                column="sources",
                regex=r"^chosen,rejected(?:,augmented)*$",
                meta={RULE: "Responses are the chosen, the rejected, then augmented ones."},
            ),
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="n_candidates",
                column_B="n_sources",
                meta={RULE: "Every response has one source."},
            ),
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="n_candidates",
                column_B="distinct_responses",
                meta={RULE: "All responses of a row are different, else there is no preference."},
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="shortest_response_chars", min_value=1, meta={RULE: "No response is empty."}
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="longest_response_chars",
                max_value=limits.max_response_chars,
                meta={RULE: "No response is longer than validate.max_response_chars."},
            ),
            gxe.ExpectColumnValuesToBeInSet(
                column="repeats_row",
                value_set=[False],
                mostly=1 - limits.max_duplicate_share,
                meta={RULE: "At most validate.max_duplicate_share of the rows repeat one of their split."},
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="splits_with_prompt",
                max_value=1,
                meta={RULE: "No prompt is in two splits, else the results on test are flattered."},
            ),
        ],
    )


def splits_suite(limits: ValidateParams) -> gx.ExpectationSuite:
    """Each split is large enough."""
    return gx.ExpectationSuite(
        name="splits",
        expectations=[
            gxe.ExpectColumnValuesToBeBetween(
                column="rows",
                min_value=limits.min_rows,
                meta={RULE: "Every split has at least validate.min_rows rows."},
            )
        ],
    )


def dataset_suite(limits: ValidateParams) -> gx.ExpectationSuite:
    """Shares over all splits are within their limits."""
    shortest, longest = limits.longer_chosen_share
    return gx.ExpectationSuite(
        name="dataset",
        expectations=[
            gxe.ExpectColumnValuesToBeBetween(
                column="quarantined_share",
                max_value=limits.max_quarantined_share,
                meta={RULE: "Quarantined rows are at most validate.max_quarantined_share of all rows."},
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="longer_chosen_share",
                min_value=shortest,
                max_value=longest,
                meta={
                    RULE: "The share of pairs with the longer response chosen (ties count half) is within "
                    "validate.longer_chosen_share, else length decides the label."
                },
            ),
        ],
    )
