/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* JSON of clients to requests: the first byte chooses the decoder, the rest is the text. What is good gives
 * a specification for the agent; errors have a text that may be shown. */

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/file-path.h"
#include "rest/stream-message.h"
#include "rest/utf8-carry.h"
#include "shared/json-field.h"
#include "tests/fuzz/fuzz.h"

static void check_spec(const ExecSpec *s) {
        _cleanup_free_ char *text = exec_spec_to_agent(s);
        _cleanup_json_ json_t *v = NULL;

        assert(text && strlen(text) > 0 && !isempty(s->cmd));
        assert(json_parse_text(text, strlen(text), &v, NULL) >= 0);
}

static int decode_create(const char *text, size_t n, Fault *reterr) {
        _cleanup_(capsule_spec_done) CapsuleSpec s = {};
        _cleanup_json_ json_t *v = NULL;
        int r;

        r = json_parse_text(text, n, &v, reterr);
        return r < 0 ? r : capsule_spec_from_json(v, &s, reterr);
}

static int decode_exec(const char *text, size_t n, Fault *reterr) {
        _cleanup_(exec_spec_done) ExecSpec s = {};
        _cleanup_json_ json_t *v = NULL;
        int r;

        r = json_parse_text(text, n, &v, reterr);
        if (r >= 0)
                r = exec_spec_from_json(v, &s, reterr);
        if (r >= 0)
                check_spec(&s);
        return r;
}

static int decode_stream(const char *text, size_t n, Fault *reterr) {
        _cleanup_(exec_spec_done) ExecSpec s = {};
        int r;

        (void) exec_message_is_stop(text, n);
        r = exec_start_from_json(text, n, &s, reterr);
        if (r >= 0)
                check_spec(&s);
        return r;
}

static int decode_pty(const char *text, size_t n, Fault *reterr) {
        _cleanup_(pty_message_done) PtyMessage m = {};
        int r;

        r = pty_message_from_json(text, n, &m, reterr);
        if (r < 0)
                return r;
        assert(m.cols <= PTY_COLS_MAX && m.rows <= PTY_ROWS_MAX);
        assert(m.type != PTY_MESSAGE_RESIZE || (m.cols > 0 && m.rows > 0));
        assert(m.type != PTY_MESSAGE_CONNECT || !isempty(m.tag));
        assert(m.n_data <= n);
        if (m.type == PTY_MESSAGE_START)
                check_spec(&m.spec);
        return 0;
}

static int decode_file(const char *text, size_t n, Fault *reterr) {
        _cleanup_free_ char *path = NULL;
        _cleanup_json_ json_t *v = NULL;
        int r;

        r = json_parse_text(text, n, &v, reterr);
        return r < 0 ? r : file_path_from_json(v, "path", &path, reterr);
}

/* Text in pieces of the size the first byte says is the text in one. */
static int carry(const char *text, size_t n, Fault *reterr) {
        size_t piece = n > 0 ? (uint8_t) text[0] % 7 + 1U : 1, n_whole = 0, n_pieces = 0;
        _cleanup_free_ char *whole = malloc(UTF8_CARRY_MAX(n)), *pieces = malloc(UTF8_CARRY_MAX(n));
        Utf8Carry a = {}, b = {};

        assert(whole && pieces);
        n_whole = utf8_carry_feed(&a, text, n, whole);
        n_whole += utf8_carry_end(&a, whole + n_whole);
        for (size_t i = 0; i < n; i += piece)
                n_pieces += utf8_carry_feed(&b, text + i, MIN(piece, n - i), pieces + n_pieces);
        n_pieces += utf8_carry_end(&b, pieces + n_pieces);

        assert(n_whole == n_pieces && memcmp(whole, pieces, n_whole) == 0);
        assert(utf8_is_valid(whole, n_whole));
        assert(!utf8_is_valid(text, n) || (n == n_whole && memcmp(text, whole, n) == 0));
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        static int (*const decoders[])(const char *text, size_t n, Fault *reterr) = {
                decode_create, decode_exec, decode_stream, decode_pty, decode_file, carry,
        };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        if (n == 0)
                return 0;
        r = decoders[data[0] % ELEMENTSOF(decoders)]((const char *) data + 1, n - 1, &fault);
        assert((r < 0) == fault_is_set(&fault));
        if (r < 0)
                assert(utf8_is_valid(fault.message, strlen(fault.message)));
        return 0;
}
