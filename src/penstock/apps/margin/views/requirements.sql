-- Equity and requirement of each account{case_note}; both are NULL while a leg has no price.
SELECT
    {case_columns}account_id,
    cash,
    lmv,
    smv,
    lmv + smv AS gross,
    CASE WHEN unpriced = 0 THEN cash + lmv - smv END AS equity,
    long_charge,
    leg_charges,
    beta_weighted_exposure,
    beta_add_on,
    minimum,
    shorts,
    CASE WHEN unpriced = 0 THEN greatest(leg_charges + beta_add_on, minimum) END AS requirement,
    unpriced > 0 AS unpriced
FROM (
    SELECT
        {case_columns_b}b.account_id,
        b.cash,
        coalesce(e.lmv, 0) AS lmv,
        coalesce(e.smv, 0) AS smv,
        coalesce(e.long_charge, 0) AS long_charge,
        coalesce(e.long_charge, 0) + coalesce(e.short_charge, 0) + coalesce(k.add_on, 0) AS leg_charges,
        coalesce(e.beta_weighted_exposure, 0) AS beta_weighted_exposure,
        CASE
            WHEN abs(e.beta_weighted_exposure) > (b.cash + e.lmv - e.smv) * r.beta_exposure_multiple
                THEN CAST((e.lmv + e.smv) * r.beta_exposure_add_on AS DECIMAL(20,4))
            ELSE 0
        END AS beta_add_on,
        CASE WHEN e.shorts > 0 THEN r.minimum_equity ELSE least(r.minimum_equity, coalesce(e.lmv, 0)) END AS minimum,
        coalesce(e.shorts, 0) AS shorts,
        coalesce(e.unpriced, 0) AS unpriced
    FROM {accounts} b
    LEFT JOIN {prefix}exposures e ON e.account_id = b.account_id{case_join_eb}
    LEFT JOIN {prefix}add_ons k ON k.account_id = b.account_id{case_join_kb}
    CROSS JOIN rules r
)
