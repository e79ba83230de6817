/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/sha256.h"
#include "basic/strings.h"
#include "rest/ws-upgrade.h"

#define KEY_BYTES 16U
#define KEY_LEN   24U /* in base64 */
#define GUID      "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

static bool key_is_valid(const char *key, size_t n) {
        _cleanup_free_ void *bytes = NULL;
        char text[KEY_LEN + 1] = "";
        size_t n_bytes;

        if (n != KEY_LEN)
                return false;
        memcpy(text, key, n);
        return base64_decode(text, n, &bytes, &n_bytes) >= 0 && n_bytes == KEY_BYTES;
}

static int answer_key(const char *key, char ret[static WS_ACCEPT_LEN + 1]) {
        _cleanup_free_ char *encoded = NULL;
        uint8_t digest[SHA1_LEN];
        char text[KEY_LEN + sizeof(GUID)];
        int r;

        memcpy(text, key, KEY_LEN);
        memcpy(text + KEY_LEN, GUID, sizeof(GUID));
        r = sha1_data(text, sizeof(text) - 1, digest);
        if (r < 0)
                return r;

        encoded = base64_encode(digest, sizeof(digest));
        if (!encoded)
                return -ENOMEM;
        memcpy(ret, encoded, WS_ACCEPT_LEN + 1);
        return 0;
}

HttpReject ws_upgrade_check(const HttpHead *head, const char *data,
                            char ret_accept[static WS_ACCEPT_LEN + 1]) {
        const HttpSlice *key = &head->websocket_key, *version = &head->websocket_version;

        if (head->method != HTTP_METHOD_GET || head->minor == 0 || head->chunked || head->length > 0)
                return HTTP_REJECT_UPGRADE_REQUEST;
        if (!head->connection_upgrade ||
            !http_list_has(data + head->upgrade.offset, head->upgrade.n, "websocket") || version->n != 2 ||
            memcmp(data + version->offset, "13", 2) != 0)
                return HTTP_REJECT_UPGRADE;
        if (!key_is_valid(data + key->offset, key->n) || answer_key(data + key->offset, ret_accept) < 0)
                return HTTP_REJECT_UPGRADE_REQUEST;
        return HTTP_REJECT_NONE;
}
