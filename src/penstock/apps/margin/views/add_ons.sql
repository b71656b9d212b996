-- The sum of what the house adds to the legs of each account{case_note}.
SELECT {case_columns}account_id, sum(add_on) AS add_on
FROM {prefix}concentrations
GROUP BY {case_columns}account_id
