"""The columns of an extract with a row a line (contracts.md section 1), and what each is in the order document."""

from __future__ import annotations

ORDER_COLUMNS = {
    "order_number": "orderNumber",
    "order_date": "date",
    "store_id": "storeId",
    "store_name": "storeName",
    "loyalty_card": "loyaltyCardNumber",
    "email": "emailAddress",
    "currency": "currency",
    "order_total": "total",
    "order_type": "orderType",
}
LINE_COLUMNS = {
    "product_code": "productCode",
    "description": "description",
    "quantity": "quantity",
    "unit_price": "unitPrice",
    "discount": "discount",
    "line_total": "total",
}
OUR_COLUMNS = frozenset({*ORDER_COLUMNS, *LINE_COLUMNS})
