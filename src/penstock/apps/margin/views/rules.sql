-- The figures of the margin rules in one row: the desk's, and the default of what it does not give.
SELECT {columns}
FROM (
    SELECT d.rule, coalesce(h.value, d.value) AS value
    FROM (VALUES {defaults}) d (rule, value)
    LEFT JOIN house_rules h ON h.rule = d.rule
)
