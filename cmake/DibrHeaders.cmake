# Headers of the frameworks behind the doors, and the page's modules; scripts/fetch_headers.py finds or fetches them.

find_package(Python 3.10 COMPONENTS Interpreter)

# Sets ${variable} to the include folder of `package`, and ${option} to ON or OFF: a door that is AUTO is left out,
# with a warning, where its headers cannot be had; one that is ON stops the configuration. The page likewise.
function(dibr_find_headers option package variable probe)
  if("${${option}}" MATCHES "^(OFF|FALSE|0)$")
    set(${option} OFF PARENT_SCOPE)
    return()
  endif()
  set(reason "")
  set(include "${${variable}}")
  if(include)
    if(NOT EXISTS "${include}/${probe}")
      set(reason "${variable} is ${include}, which has no ${probe}")
    endif()
  elseif(NOT Python_Interpreter_FOUND)
    set(reason "no files of ${package}: finding or fetching them takes Python 3.10 or newer; set ${variable} instead")
  else()
    # -E: in an isolated build PYTHONPATH hides the packages of the interpreter that the wheel is built for.
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -E "${PROJECT_SOURCE_DIR}/scripts/fetch_headers.py" ${package}
      RESULT_VARIABLE failed OUTPUT_VARIABLE include ERROR_VARIABLE reason
      OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
    if(NOT failed)
      set(reason "")
    endif()
  endif()
  if(reason AND "${${option}}" STREQUAL AUTO)
    message(WARNING "${option}=AUTO, built without it: ${reason}")
    set(${option} OFF PARENT_SCOPE)
  elseif(reason)
    message(FATAL_ERROR "${option}=${${option}}: ${reason}")
  else()
    set(${option} ON PARENT_SCOPE)
    set(${variable} "${include}" PARENT_SCOPE)
  endif()
endfunction()
