# Flags and helpers shared by every layer.

add_library(stasis_flags INTERFACE)
target_compile_options(stasis_flags INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-qual
  -Wduplicated-cond -Wformat=2 -Wundef -Wno-missing-field-initializers -fno-semantic-interposition)
target_compile_definitions(stasis_flags INTERFACE _GNU_SOURCE FMT_USE_CONSTEVAL=1)
# Inlining across files makes g++ 12 see null pointers where std::any_cast<T&> has thrown.
target_compile_options(stasis_flags INTERFACE $<$<NOT:$<BOOL:${STASIS_UNITY}>>:-Wnull-dereference>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(stasis_flags INTERFACE -Wno-unknown-warning-option -Wno-error)
endif()
if(STASIS_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()

# stasis_library(NAME SOURCES ... DEPENDS ...): one layer. Its headers are included as "layer/x.h"; the
# per-layer include directory holds a single link to the layer, so headers of layers that are not below
# it (DEPENDS, and what these depend on) cannot be found.
function(stasis_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(stasis_${name} STATIC ${ARG_SOURCES})
  set(view ${CMAKE_BINARY_DIR}/include/${name})
  file(MAKE_DIRECTORY ${view})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/src/${name} ${view}/${name} SYMBOLIC)
  target_include_directories(stasis_${name} PUBLIC ${view})
  target_link_libraries(stasis_${name} PUBLIC ${ARG_DEPENDS} PRIVATE stasis_flags)
  # Reading headers is most of the work of a build from nothing. Any two files of a library may meet in one unit, so
  # names in their unnamed namespaces differ too.
  set_target_properties(stasis_${name} PROPERTIES UNITY_BUILD ${STASIS_UNITY} UNITY_BUILD_BATCH_SIZE 8)
endfunction()

# stasis_unit_test(LAYER FILE ...): x_test.cpp files beside the source. No privilege needed. One binary a layer.
function(stasis_unit_test layer)
  add_executable(${layer}_test ${ARGN})
  target_link_libraries(${layer}_test PRIVATE stasis_${layer} stasis_flags GTest::gtest_main)
  set_target_properties(${layer}_test PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME unit.${layer} COMMAND ${layer}_test --gtest_brief=1)
  set_tests_properties(unit.${layer} PROPERTIES LABELS fast TIMEOUT 60)
endfunction()

# Debian's libraries, linked statically where start-up time counts (a whole dump takes a few milliseconds).
function(stasis_static_library target file header)
  find_library(${target}_path ${file} REQUIRED)
  find_path(${target}_include ${header} REQUIRED)
  add_library(${target} INTERFACE)
  target_link_libraries(${target} INTERFACE ${${target}_path})
endfunction()
stasis_static_library(stasis_xxhash libxxhash.a xxhash.h)
stasis_static_library(stasis_protobuf libprotobuf.a google/protobuf/message.h)
target_link_libraries(stasis_protobuf INTERFACE Threads::Threads)
