"""The line nginx writes for each request, and how it is read back."""

from __future__ import annotations

# One JSON object a line; short keys, since this is written for every request.
#   t: end of request, Unix seconds with ms     s: service      k: track nginx chose
#   c: final status   rt: seconds, whole request   m: method   f: "1" when a header forced the track
#   ua/us/ut: upstream addresses, statuses and times: one for each attempt, joined by ", " (nginx's own form)
LOG_FORMAT = (
    "log_format deploykit escape=json "
    "'{\"t\":$msec,\"s\":\"$dk_service\",\"k\":\"$dk_track\",\"c\":$status,\"rt\":$request_time,"
    "\"m\":\"$request_method\",\"f\":\"$dk_forced\","
    "\"ua\":\"$upstream_addr\",\"us\":\"$upstream_status\",\"ut\":\"$upstream_response_time\"}';"
)
