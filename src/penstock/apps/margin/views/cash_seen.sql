-- Whether any cash entry ever came: without a source of cash, balances are what fills left of nothing.
SELECT count(*) > 0 AS seen FROM cash
