/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The messages of RFC 6455, without a socket: bytes of a client in, messages and control frames out; and
 * frames of ours made. libwslay reads and writes single frames; what may follow what, how much of it, and
 * whether it is text, is decided here. No extensions.
 */

#include "basic/macro.h"

typedef struct WsCodec WsCodec;

typedef enum WsOpcode {
        WS_TEXT = 1,
        WS_BINARY = 2,
        WS_CLOSE = 8,
        WS_PING = 9,
        WS_PONG = 10,
} WsOpcode;

/* Codes of a Close (RFC 6455 §7.4). */
enum {
        WS_CODE_NORMAL = 1000,
        WS_CODE_GOING_AWAY = 1001,
        WS_CODE_PROTOCOL = 1002,
        WS_CODE_NONE = 1005,     /* stands for a Close without one */
        WS_CODE_ABNORMAL = 1006, /* stands for an end without a Close */
        WS_CODE_NOT_TEXT = 1007,
        WS_CODE_POLICY = 1008,
        WS_CODE_TOO_LARGE = 1009,
        WS_CODE_INTERNAL = 1011,
        WS_CODE_TRY_LATER = 1013,
};

#define WS_CONTROL_MAX 125U /* payload of a control frame */
#define WS_REASON_MAX  (WS_CONTROL_MAX - 2)
#define WS_HEADER_MAX  10U /* of a frame of ours */

/* A message, or a control frame. data ends with ws_codec_release() or the next call. */
typedef struct WsEvent {
        WsOpcode opcode;
        const void *data; /* of a Close: its reason */
        size_t n;
        unsigned code; /* of a Close */
} WsEvent;

int ws_codec_new(WsCodec **ret);
WsCodec* ws_codec_free(WsCodec *c);
DEFINE_CLEANUP(WsCodec, ws_codec_free)

/* What ws_codec_next() looks at; borrowed until it is used up or replaced. */
void ws_codec_set_input(WsCodec *c, const void *data, size_t n);
/* Bytes of it that were not looked at yet: its last ones. */
size_t ws_codec_n_left(const WsCodec *c);
/* Bytes of a message that is not whole yet. */
size_t ws_codec_n_buffered(const WsCodec *c);

/*
 * 1: *ret is the next message or control frame. 0: the input is used up. -EBADMSG: the peer is wrong; *ret
 * is the Close that it deserves. -ENOMEM. After a Close and after an error nothing may be read any more.
 */
int ws_codec_next(WsCodec *c, WsEvent *ret);
void ws_codec_release(WsCodec *c);

/* Writes one frame of ours into buffer (n + WS_HEADER_MAX bytes). Returns its length. n <= WS_CONTROL_MAX
 * for control frames. */
size_t ws_codec_write(WsCodec *c, WsOpcode opcode, const void *data, size_t n, void *buffer);
