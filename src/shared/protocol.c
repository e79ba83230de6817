/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The typed frames in the DATA of /processes and the names of the ends; see protocol.h. */

#include "basic/strings.h"
#include "shared/protocol.h"

void frame_header(uint8_t ret[static FRAME_HEADER_LEN], FrameType type, uint32_t length) {
        ret[0] = (uint8_t) type;
        ret[1] = (uint8_t) (length >> 24);
        ret[2] = (uint8_t) (length >> 16);
        ret[3] = (uint8_t) (length >> 8);
        ret[4] = (uint8_t) length;
}

static bool frame_is_piecewise(FrameType type) {
        return type == FRAME_STDIN || type == FRAME_STDOUT || type == FRAME_STDERR || type == FRAME_PTY;
}

/* Largest payload of a type, or -EPROTO for an unknown one. */
static int64_t frame_max(FrameType type) {
        switch (type) {
        case FRAME_SPEC:
                return AGENT_JSON_MAX;

        case FRAME_STDIN_EOF:
                return 0;

        case FRAME_RESIZE:
                return 4;

        case FRAME_STDIN:
        case FRAME_STARTED:
        case FRAME_STDOUT:
        case FRAME_STDERR:
        case FRAME_PTY:
        case FRAME_EXIT:
                return FRAME_PAYLOAD_MAX;

        default:
                return -EPROTO;
        }
}

void frame_decoder_done(FrameDecoder *d) {
        free(d->buffer);
        *d = (FrameDecoder) {};
}

/* The header is whole: checks it and gets ready for the payload. */
static int frame_begin(FrameDecoder *d) {
        FrameType type = d->header[0];
        uint32_t length;

        length = (uint32_t) d->header[1] << 24 | (uint32_t) d->header[2] << 16 |
                 (uint32_t) d->header[3] << 8 | d->header[4];
        if ((int64_t) length > frame_max(type))
                return -EPROTO;

        if (!frame_is_piecewise(type) && length > 0) {
                d->buffer = malloc(length);
                if (!d->buffer)
                        return -ENOMEM;
        }

        d->n_buffer = 0;
        d->left = length;
        return 0;
}

/* Passes on what of the payload is in data; *n becomes the number of bytes used. */
static int frame_payload(FrameDecoder *d, const void *data, size_t *n, FrameHandler on_frame,
                         void *userdata) {
        FrameType type = d->header[0];
        int r = 0;

        *n = MIN(*n, (size_t) d->left);
        d->left -= (uint32_t) *n;

        if (frame_is_piecewise(type)) {
                if (*n > 0)
                        r = on_frame(type, data, *n, userdata);
        } else {
                if (*n > 0)
                        memcpy(d->buffer + d->n_buffer, data, *n);
                d->n_buffer += *n;
                if (d->left == 0)
                        r = on_frame(type, d->buffer ?: (const void *) "", d->n_buffer, userdata);
        }

        if (d->left == 0) {
                free(d->buffer);
                *d = (FrameDecoder) {};
        }

        return r < 0 ? r : 0;
}

int frame_decoder_feed(FrameDecoder *d, const void *data, size_t n, FrameHandler on_frame, void *userdata) {
        const uint8_t *p = data;
        int r;

        while (n > 0) {
                size_t k;

                if (d->n_header < FRAME_HEADER_LEN) {
                        d->header[d->n_header++] = *p++;
                        n--;
                        if (d->n_header < FRAME_HEADER_LEN)
                                continue;

                        r = frame_begin(d);
                        if (r < 0)
                                return r;
                        if (d->left > 0)
                                continue;
                }

                k = n;
                r = frame_payload(d, p, &k, on_frame, userdata);
                if (r < 0)
                        return r;
                p += k;
                n -= k;
        }

        return 0;
}

static const char *const end_reason_names[_END_REASON_MAX] = {
        [END_NONE] = "none",
        [END_USER] = "user",
        [END_TIMEOUT] = "timeout",
        [END_GUEST_EXIT] = "guest-exit",
        [END_VMM_CRASH] = "vmm-crash",
        [END_OOM] = "oom",
        [END_HOST_SHUTDOWN] = "host-shutdown",
        [END_HOST_REBOOT] = "host-reboot",
        [END_DISK_FULL] = "disk-full",
        [END_AGENT_LOST] = "agent-lost",
        [END_LOST] = "lost",
};

const char* end_reason_to_string(EndReason r) {
        assert(r >= 0 && r < _END_REASON_MAX);
        return end_reason_names[r];
}

EndReason end_reason_from_string(const char *s) {
        for (EndReason i = 0; s && i < _END_REASON_MAX; i++)
                if (streq(end_reason_names[i], s))
                        return i;

        return _END_REASON_INVALID;
}
