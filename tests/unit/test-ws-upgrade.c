/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "rest/ws-upgrade.h"
#include "tests/unit/test.h"

#define LINE    "GET / HTTP/1.1\r\nHost: localhost\r\n"
#define KEY     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define UPGRADE "Connection: Upgrade\r\nUpgrade: websocket\r\n"

TEST(handshakes) {
        static const struct {
                const char *head;
                HttpReject reject;
        } cases[] = {
                { LINE UPGRADE KEY VERSION, HTTP_REJECT_NONE },
                { LINE "Connection: keep-alive, upgrade\r\nUpgrade: h2c, WebSocket\r\n" KEY VERSION,
                  HTTP_REJECT_NONE },
                { LINE "Connection: close\r\nConnection: UPGRADE\r\nUpgrade: websocket\r\n" KEY VERSION,
                  HTTP_REJECT_NONE },
                { LINE UPGRADE KEY VERSION
                  "Content-Length: 0\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
                  HTTP_REJECT_NONE },
                { LINE, HTTP_REJECT_UPGRADE },
                { LINE KEY VERSION, HTTP_REJECT_UPGRADE },
                { LINE "Upgrade: websocket\r\n" KEY VERSION, HTTP_REJECT_UPGRADE },
                { LINE "Connection: Upgrade\r\n" KEY VERSION, HTTP_REJECT_UPGRADE },
                { LINE "Connection: Upgrade\r\nUpgrade: websockets\r\n" KEY VERSION, HTTP_REJECT_UPGRADE },
                { LINE "Connection: Upgrade\r\nUpgrade: h2c\r\n" KEY VERSION, HTTP_REJECT_UPGRADE },
                { LINE UPGRADE KEY, HTTP_REJECT_UPGRADE },
                { LINE UPGRADE KEY "Sec-WebSocket-Version: 8\r\n", HTTP_REJECT_UPGRADE },
                { LINE UPGRADE KEY "Sec-WebSocket-Version: 13, 8\r\n", HTTP_REJECT_UPGRADE },
                { LINE UPGRADE KEY "Sec-WebSocket-Version: 013\r\n", HTTP_REJECT_UPGRADE },
                { LINE UPGRADE VERSION, HTTP_REJECT_UPGRADE_REQUEST },
                { LINE UPGRADE VERSION "Sec-WebSocket-Key:\r\n", HTTP_REJECT_UPGRADE_REQUEST },
                { LINE UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n",
                  HTTP_REJECT_UPGRADE_REQUEST },
                { LINE UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=\r\n",
                  HTTP_REJECT_UPGRADE_REQUEST },
                { LINE UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ*==\r\n",
                  HTTP_REJECT_UPGRADE_REQUEST },
                { LINE UPGRADE KEY VERSION "Content-Length: 1\r\n", HTTP_REJECT_UPGRADE_REQUEST },
                { LINE UPGRADE KEY VERSION "Transfer-Encoding: chunked\r\n", HTTP_REJECT_UPGRADE_REQUEST },
                { "GET / HTTP/1.0\r\nHost: localhost\r\n" UPGRADE KEY VERSION, HTTP_REJECT_UPGRADE_REQUEST },
                { "POST / HTTP/1.1\r\nHost: localhost\r\n" UPGRADE KEY VERSION,
                  HTTP_REJECT_UPGRADE_REQUEST },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char head[1024], accept[WS_ACCEPT_LEN + 1] = "";
                HttpScan scan = {};

                (void) snprintf(head, sizeof(head), "%s\r\n", cases[i].head);
                ASSERT_EQ(http_scan_head(&scan, head, strlen(head)), strlen(head));
                if (ws_upgrade_check(&scan.head, head, accept) != cases[i].reject)
                        fail_msg("wrong verdict of %s", head);
                /* the example of RFC 6455 §1.3 */
                ASSERT_STREQ(accept,
                             cases[i].reject == HTTP_REJECT_NONE ? "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" : "");
        }
}

/* Twice is no doubt to be settled by us. */
TEST(a_second_key_or_version_is_refused) {
        static const char *const cases[] = { LINE UPGRADE KEY KEY VERSION "\r\n",
                                             LINE UPGRADE KEY VERSION VERSION "\r\n" };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                HttpScan scan = {};

                ASSERT_EQ(http_scan_head(&scan, cases[i], strlen(cases[i])), -EBADMSG);
                ASSERT_EQ(scan.reject, HTTP_REJECT_DUPLICATE);
        }
}
