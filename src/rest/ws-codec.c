/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <wslay/wslay.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/ws-codec.h"

struct WsCodec {
        wslay_frame_context_ptr frames;
        const uint8_t *input; /* weak */
        size_t n_input;
        uint8_t *output; /* weak: where the frame goes that is written */

        /* the frame that is read */
        bool in_frame, fin;
        uint8_t opcode;
        uint64_t left;
        uint8_t control[WS_CONTROL_MAX];
        size_t n_control;

        /* the message that is read */
        uint8_t message_opcode; /* 0: none has begun */
        uint8_t *message;
        size_t n_message, n_allocated;
        size_t n_checked; /* of a text: whole characters */
        unsigned n_fragments;
        bool delivered; /* it was the last event */
};

static ssize_t on_recv(uint8_t *buffer, size_t n, int flags, void *userdata) {
        WsCodec *c = userdata;
        size_t k = MIN(n, c->n_input);

        if (k == 0)
                return -1; /* for libwslay: later */
        memcpy(buffer, c->input, k);
        c->input += k;
        c->n_input -= k;
        return (ssize_t) k;
}

static ssize_t on_send(const uint8_t *data, size_t n, int flags, void *userdata) {
        WsCodec *c = userdata;

        memcpy(c->output, data, n);
        c->output += n;
        return (ssize_t) n;
}

int ws_codec_new(WsCodec **ret) {
        static const struct wslay_frame_callbacks callbacks = { .recv_callback = on_recv,
                                                                .send_callback = on_send };
        _cleanup_(ws_codec_freep) WsCodec *c = NULL;

        c = calloc(1, sizeof(WsCodec));
        if (!c || wslay_frame_context_init(&c->frames, &callbacks, c) != 0)
                return -ENOMEM;

        *ret = TAKE_PTR(c);
        return 0;
}

WsCodec* ws_codec_free(WsCodec *c) {
        if (!c)
                return NULL;

        if (c->frames)
                wslay_frame_context_free(c->frames);
        free(c->message);
        free(c);
        return NULL;
}

void ws_codec_set_input(WsCodec *c, const void *data, size_t n) {
        c->input = data;
        c->n_input = n;
}

size_t ws_codec_n_left(const WsCodec *c) {
        return c->n_input;
}

size_t ws_codec_n_buffered(const WsCodec *c) {
        return c->n_allocated;
}

void ws_codec_release(WsCodec *c) {
        if (!c->delivered)
                return;
        free(c->message);
        c->message = NULL;
        c->message_opcode = 0;
        c->n_message = c->n_allocated = c->n_checked = c->n_fragments = 0;
        c->delivered = false;
}

static int refuse(WsEvent *ret, unsigned code, const char *reason) {
        *ret = (WsEvent) { WS_CLOSE, reason, strlen(reason), code };
        return -EBADMSG;
}

/* The first frame of a message, or one more. */
static int begin_data(WsCodec *c, const struct wslay_frame_iocb *f, WsEvent *ret) {
        if (f->opcode == WSLAY_CONTINUATION_FRAME) {
                if (c->message_opcode == 0)
                        return refuse(ret, WS_CODE_PROTOCOL, "A continuation without a message.");
        } else {
                if (c->message_opcode != 0)
                        return refuse(ret, WS_CODE_PROTOCOL, "A new message within another.");
                c->message_opcode = f->opcode;
        }

        if (++c->n_fragments > WS_FRAGMENTS_MAX)
                return refuse(ret, WS_CODE_TOO_LARGE, "A message in more than 64 fragments.");
        if (f->payload_length > WS_MESSAGE_MAX - c->n_message)
                return refuse(ret, WS_CODE_TOO_LARGE, "A message of more than 1 MiB.");
        return 0;
}

static int begin_frame(WsCodec *c, const struct wslay_frame_iocb *f, WsEvent *ret) {
        if (f->rsv != 0)
                return refuse(ret, WS_CODE_PROTOCOL, "A reserved bit is set.");
        if (!f->mask)
                return refuse(ret, WS_CODE_PROTOCOL, "A client's frame must be masked.");

        c->in_frame = true;
        c->fin = f->fin;
        c->opcode = f->opcode;
        c->left = f->payload_length;
        c->n_control = 0;

        switch (f->opcode) {
        case WSLAY_CONTINUATION_FRAME:
        case WSLAY_TEXT_FRAME:
        case WSLAY_BINARY_FRAME:
                return begin_data(c, f, ret);
        case WSLAY_CONNECTION_CLOSE:
        case WSLAY_PING:
        case WSLAY_PONG:
                return 0; /* libwslay has seen to the length and the FIN bit */
        default:
                return refuse(ret, WS_CODE_PROTOCOL, "An unknown opcode.");
        }
}

/* Grows with what came, not with what was announced. */
static int message_append(WsCodec *c, const void *data, size_t n) {
        size_t need = c->n_message + n;

        if (need > c->n_allocated) {
                size_t twice = MIN(c->n_allocated * 2, (size_t) WS_MESSAGE_MAX);
                size_t allocate = MAX(need, twice);
                uint8_t *message = realloc(c->message, allocate);

                if (!message)
                        return -ENOMEM;
                c->message = message;
                c->n_allocated = allocate;
        }
        if (n > 0)
                memcpy(c->message + c->n_message, data, n);
        c->n_message = need;
        return 0;
}

/* What came of a text must be UTF-8, at once; the end of the message may not cut a character. */
static bool message_is_text(WsCodec *c, bool whole) {
        const char *s = (const char *) c->message + c->n_checked;
        size_t n = c->n_message - c->n_checked, k = whole ? n : utf8_complete_prefix(s, n);

        if (n == 0)
                return true;
        if (!utf8_is_valid(s, k))
                return false;
        c->n_checked += k;
        return true;
}

static int take_payload(WsCodec *c, const uint8_t *data, size_t n, WsEvent *ret) {
        int r;

        c->left -= n;
        if (wslay_is_ctrl_frame(c->opcode)) {
                assert(c->n_control + n <= sizeof(c->control));
                memcpy(c->control + c->n_control, data, n);
                c->n_control += n;
                return 0;
        }

        r = message_append(c, data, n);
        if (r < 0)
                return r;
        if (c->message_opcode == WS_TEXT && !message_is_text(c, c->fin && c->left == 0))
                return refuse(ret, WS_CODE_NOT_TEXT, "A text is not valid UTF-8.");
        return 0;
}

/* Codes that may be sent (RFC 6455 §7.4, and what was registered since). */
static bool code_is_valid(unsigned code) {
        static const struct {
                unsigned first, last;
        } valid[] = { { 1000, 1003 }, { 1007, 1014 }, { 3000, 4999 } };

        for (size_t i = 0; i < ELEMENTSOF(valid); i++)
                if (code >= valid[i].first && code <= valid[i].last)
                        return true;
        return false;
}

static int end_close(WsCodec *c, WsEvent *ret) {
        unsigned code;

        if (c->n_control == 0) {
                *ret = (WsEvent) { WS_CLOSE, "", 0, WS_CODE_NONE };
                return 1;
        }

        code = c->n_control < 2 ? 0 : (unsigned) c->control[0] << 8 | c->control[1];
        if (!code_is_valid(code))
                return refuse(ret, WS_CODE_PROTOCOL, "A Close with an invalid code.");
        if (!utf8_is_valid((const char *) c->control + 2, c->n_control - 2))
                return refuse(ret, WS_CODE_NOT_TEXT, "The reason of a Close is not valid UTF-8.");
        *ret = (WsEvent) { WS_CLOSE, c->control + 2, c->n_control - 2, code };
        return 1;
}

/* A frame is whole. 1: and it makes an event. */
static int end_frame(WsCodec *c, WsEvent *ret) {
        c->in_frame = false;
        if (c->opcode == WS_CLOSE)
                return end_close(c, ret);
        if (wslay_is_ctrl_frame(c->opcode)) {
                *ret = (WsEvent) { c->opcode, c->control, c->n_control, 0 };
                return 1;
        }
        if (!c->fin)
                return 0;

        c->delivered = true;
        *ret = (WsEvent) { c->message_opcode, c->n_message > 0 ? c->message : (const void *) "",
                           c->n_message, 0 };
        return 1;
}

int ws_codec_next(WsCodec *c, WsEvent *ret) {
        int r;

        ws_codec_release(c);
        for (;;) {
                struct wslay_frame_iocb f = {};
                ssize_t k = wslay_frame_recv(c->frames, &f);

                if (k == WSLAY_ERR_WANT_READ)
                        return 0;
                if (k < 0)
                        return refuse(ret, WS_CODE_PROTOCOL, "A malformed frame.");

                r = c->in_frame ? 0 : begin_frame(c, &f, ret);
                if (r < 0)
                        return r;
                r = take_payload(c, f.data, f.data_length, ret);
                if (r < 0)
                        return r;
                if (c->left > 0)
                        continue;
                r = end_frame(c, ret);
                if (r != 0)
                        return r;
        }
}

size_t ws_codec_write(WsCodec *c, WsOpcode opcode, const void *data, size_t n, void *buffer) {
        struct wslay_frame_iocb f = {
                .fin = 1, .opcode = opcode, .payload_length = n, .data = data, .data_length = n
        };

        c->output = buffer;
        (void) wslay_frame_send(c->frames, &f);
        return (size_t) (c->output - (uint8_t *) buffer);
}
