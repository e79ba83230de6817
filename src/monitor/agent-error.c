/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "monitor/agent-error.h"
#include "shared/json-field.h"

void agent_error_done(AgentError *e) {
        h2_ring_done(&e->body);
}

int agent_error_take(AgentError *e, const void *data, size_t n) {
        if (n > AGENT_JSON_MAX - MIN(e->body.n, AGENT_JSON_MAX))
                return -E2BIG;
        return h2_ring_put(&e->body, data, n);
}

int agent_error_fault(AgentError *e, const char *otherwise, Fault *ret) {
        _cleanup_free_ char *text = NULL, *shown = NULL;
        _cleanup_json_ json_t *body = NULL;
        FaultCode code = FAULT_AGENT;
        size_t n = e->body.n;
        const char *message;
        json_t *error;

        text = malloc(n + 1);
        if (!text)
                return fault_set(ret, FAULT_NO_MEMORY, "Out of memory.");
        h2_ring_get(&e->body, text, n);
        text[n] = 0;
        if (json_parse_text(text, n, &body, NULL) >= 0) {
                error = json_object_get(body, "error");
                message = json_string_value(json_object_get(error, "message"));
                if (json_is_string(json_object_get(error, "code")))
                        code = fault_from_wire_name(json_string_value(json_object_get(error, "code")));
                if (message)
                        shown = escape_for_display(message,
                                                   MIN(strlen(message), (size_t) FAULT_MESSAGE_MAX / 4));
        }
        return fault_set(ret, code == FAULT_NONE ? FAULT_AGENT : code, "%s", shown ?: otherwise);
}
