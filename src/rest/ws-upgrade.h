/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The opening handshake of a WebSocket (RFC 6455 §4.2). Host and Origin were checked by the gate. */

#include "rest/http-scan.h"

#define WS_ACCEPT_LEN 28U

/* May this request become a WebSocket? HTTP_REJECT_NONE: ret_accept is the NUL-terminated answer to its key.
 */
HttpReject ws_upgrade_check(const HttpHead *head, const char *data,
                            char ret_accept[static WS_ACCEPT_LEN + 1]);

/* Further lines of the refusal. */
#define WS_UPGRADE_HEADERS "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"

/* The 101; "%s" is the answer. */
#define WS_UPGRADE_ANSWER                                                                   \
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
        "Sec-WebSocket-Accept: %s\r\n\r\n"
