/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The description of all this, docs/openapi.yaml, for programs and for people. It is part of the program, so
 * that it fits it. */

#include <microhttpd.h>

#include "rest/openapi-text.h"
#include "rest/rest.h"

static void answer_text(RestRequest *q, const char *type, const char *text, size_t n) {
        struct MHD_Response *response;

        response = MHD_create_response_from_buffer(n, (void *) text, MHD_RESPMEM_PERSISTENT);
        if (response)
                (void) MHD_add_response_header(response, "Content-Type", type);
        rest_answer_response(q, 200, response);
}

int rest_openapi_get(RestRequest *q, Fault *reterr) {
        answer_text(q, "application/yaml", openapi_text, sizeof(openapi_text));
        return 0;
}

int rest_docs_get(RestRequest *q, Fault *reterr) {
        answer_text(q, "text/html; charset=utf-8", docs_text, sizeof(docs_text));
        return 0;
}
