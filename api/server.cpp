#include "api/server.h"
namespace hobbes {
namespace { class Nothing final : public ApiServer { public: explicit Nothing(Fd f):fd(std::move(f)){} void stop() override { fd.reset(); } Fd fd; }; }
Result<std::unique_ptr<ApiServer>> ApiServer::start(Fd listening, const ApiOptions&) { return std::unique_ptr<ApiServer>(new Nothing(std::move(listening))); }
}
