// The owner of the precompiled header that all tests share (tests/CMakeLists.txt). It tests
// nothing.
