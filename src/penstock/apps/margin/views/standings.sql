-- What the ladder looks at.
SELECT
    m.account_id,
    m.gross,
    m.excess,
    m.requirement,
    m.sale_needed,
    w.worst_equity,
    m.stale,
    r.warning_share,
    r.grace_minutes,
    r.liquidation_share,
    CAST(to_json({
        'as_of': m.as_of,
        'cash': CAST(m.cash AS VARCHAR),
        'lmv': CAST(m.lmv AS VARCHAR),
        'smv': CAST(m.smv AS VARCHAR),
        'requirement': CAST(m.requirement AS VARCHAR),
        'worst_equity': CAST(w.worst_equity AS VARCHAR),
        'stale': m.stale
    }) AS VARCHAR) AS causes,
    m.as_of
FROM margins m
LEFT JOIN worst_cases w ON w.account_id = m.account_id
CROSS JOIN rules r
